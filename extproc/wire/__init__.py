"""The bytes of Envoy's external-processing protocol (protos/ext_proc.proto)."""
