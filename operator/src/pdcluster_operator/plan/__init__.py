"""Pure: the whole plan of a PDCluster, for a machine or for a cluster."""
