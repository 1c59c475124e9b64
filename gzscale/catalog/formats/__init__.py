"""One module a file format: column names, units and a stream of Arrow batches."""
