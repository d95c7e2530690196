"""The main job, shown on a real Envoy: a mock provider, the server, Envoy, calls, and what all of them say of it."""
