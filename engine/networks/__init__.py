"""Networks: Docker's API over the port layer's. Their events come from the port layer.

What is built in is decided there, too: `bridge` and `none`. There is no `host`: a container VM has
no host network to share.
"""
