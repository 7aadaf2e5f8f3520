"""`pdc run`: the planned pods of a PDCluster as processes of this machine."""
