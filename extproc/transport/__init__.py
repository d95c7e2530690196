"""The ways in which Envoy's messages reach a `Stream`."""
