"""One look at a PDCluster on a Kubernetes cluster: from what exists to what is to be done. Pure."""
