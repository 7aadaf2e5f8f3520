"""The typed model of `pdcluster.dev/v1alpha1`, from which the CustomResourceDefinitions are generated."""
