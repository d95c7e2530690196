"""Configuration for the proxies that people run: typed with Envoy's API, written as YAML with comments."""
