"""The gRPC face of the port layer. Servicers translate, one file a service; they decide nothing.

``interceptor`` gives every call its operation ID and turns errors into statuses
(``status``); ``server`` owns the socket; ``daemon`` puts the rooms together.
"""
