"""One control plane for the tests of both folders that need one: a fixture of two conftests would start two."""

from cluster_fixtures import control_plane

__all__ = ["control_plane"]
