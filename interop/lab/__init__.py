"""The test bed: containers or namespaces, networks, captures and waiting. Nothing here knows IKE peers."""
