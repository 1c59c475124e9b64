"""How the kinds of clusters are made, watched and checked; `gzscale.cluster` opens them."""
