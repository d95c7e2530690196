# envoy/envoy.yaml for containers: the same file but for the addresses.
#
#   sed -f deploy/compose/envoy.sed envoy/envoy.yaml > deploy/compose/envoy.yaml

# The head of the file says where it comes from.
1i\
# Made by envoy.sed from envoy/envoy.yaml: change those, not this.\
#

# A container is reached from outside of it, so Envoy listens on all of its addresses.
s/address: 127\.0\.0\.1, port_value: 10000/address: 0.0.0.0, port_value: 10000/
# The admin port too: Prometheus reads it. docker-compose.yml keeps it to its own network and 127.0.0.1.
s/address: 127\.0\.0\.1, port_value: 9901/address: 0.0.0.0, port_value: 9901/

# The others are names, which Envoy asks the network's DNS for, again and again: a container may come back elsewhere.
s/address: 127\.0\.0\.1, port_value: 18080/address: provider, port_value: 18080/
s/address: 127\.0\.0\.1, port_value: 50051/address: extproc, port_value: 50051/
s/type: STATIC/type: STRICT_DNS/
