"""The test bed: containers, networks, captures and waiting. Nothing here knows IKE peers."""
