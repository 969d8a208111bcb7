"""Networks over many hosts: VXLAN between them, etcd for what they must agree on, and nothing that runs needs etcd."""
