"""Bytes in, facts out.

Nothing here waits, logs, reads a clock or knows of Envoy and gRPC (a lint rule keeps it so), nothing raises on any
input, and memory is bounded whatever arrives. Times come in as arguments.
"""
