"""Volumes: Docker's API over the port layer's volumes. Their events come from the port layer."""
