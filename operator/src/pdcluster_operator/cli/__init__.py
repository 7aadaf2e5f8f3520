"""The `pdc` command, also installed as `kubectl-pdc`."""
