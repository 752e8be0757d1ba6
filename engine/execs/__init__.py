"""``docker exec``: create, start, inspect, resize.

An exec between create and start is a document in the key-value store; its state
once started is the guest's. Documents of ended execs are swept.
"""
