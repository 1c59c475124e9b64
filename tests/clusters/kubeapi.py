"""As much of the API of Kubernetes, with a Dask operator, as dask-kubernetes asks for."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class KubeApi(ThreadingHTTPServer):
    """Answers on a port of its own.

    Parameters
    ----------
    pods
        Status of each pod that the operator makes of a cluster, by component.

    Attributes
    ----------
    objects
        Plural and name -> object, of all that exists.
    refused
        Plurals of what may not be created.
    deleted
        Names of what was deleted.
    made
        DaskClusters, as they were created.
    """

    daemon_threads = True

    def __init__(self, pods):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.pods, self.objects, self.refused, self.deleted = pods, {}, set(), []
        self.made = []
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def config(self):
        """A kubeconfig, for a file that KUBECONFIG names."""
        cluster = {"server": f"http://127.0.0.1:{self.server_port}"}
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": "t"}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "default"}}],
            "current-context": "x",
        }

    def create(self, plural, item):
        name = item["metadata"]["name"]
        self.objects[plural, name] = item
        if plural == "daskclusters":
            self.made.append(json.loads(json.dumps(item)))
            item["status"] = {"phase": "Running"}
            for component, status in self.pods.items():
                labels = {"dask.org/cluster-name": name, "dask.org/component": component}
                metadata = {"name": f"{name}-{component}", "labels": labels}
                self.objects["pods", metadata["name"]] = {"metadata": metadata, "status": status}
            metadata = {"name": f"{name}-scheduler"}
            spec = {"type": "ClusterIP", "selector": {"dask.org/cluster-name": name}, "ports": []}
            self.objects["services", metadata["name"]] = {"metadata": metadata, "spec": spec, "status": {}}

    def delete(self, plural, name):
        self.deleted.append(name)
        self.objects = {key: item for key, item in self.objects.items() if key != (plural, name)}

    def find(self, plural, labels, fields):
        return [
            item
            for (kind, name), item in self.objects.items()
            if kind == plural
            and labels.items() <= item["metadata"].get("labels", {}).items()
            and fields.get("metadata.name", name) == name
            and fields.get("status.phase") in (None, item.get("status", {}).get("phase"))
        ]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        address = urlsplit(self.path)
        place = _place(address.path)
        if place is None:
            return self._answer(_DISCOVERY.get(address.path.rstrip("/"), {"resources": []}))
        plural, name = place
        query = parse_qs(address.query)
        fields = _selector(query.get("fieldSelector")) | ({"metadata.name": name} if name else {})
        found = self.server.find(plural, _selector(query.get("labelSelector")), fields)
        if not name:
            return self._answer({"kind": "List", "items": found})
        return self._answer(found[0]) if found else self._answer({"message": f"no {name}"}, 404)

    def do_POST(self):
        item = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        plural, _ = _place(self.path)
        if plural in self.server.refused:
            return self._answer({"message": f"{plural} is forbidden: exceeded quota"}, 422)
        self.server.create(plural, item)
        return self._answer(item, 201)

    def do_DELETE(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.delete(*_place(urlsplit(self.path).path))
        self._answer({})

    def _answer(self, tree, status=200):
        body = json.dumps(tree).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


_PODS = {"name": "pods", "singularName": "pod", "kind": "Pod", "namespaced": True, "shortNames": ["po"]}
_DISCOVERY = {
    "/version": {"gitVersion": "v1.33.0"},
    "/api": {"versions": ["v1"]},
    "/api/v1": {"resources": [_PODS]},
    "/apis": {"groups": []},
}


def _place(path):
    """Return the plural and the name, or "", that a path below a namespace tells."""
    _, found, rest = path.partition("/namespaces/")
    return [*rest.split("/"), ""][1:3] if found else None


def _selector(values):
    pairs = [pair for value in values or [] for pair in value.split(",") if pair]
    return dict(pair.split("=", 1) for pair in pairs)
