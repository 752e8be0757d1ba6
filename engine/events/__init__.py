"""Docker's events: made from what the port layer pushes and from what images report.

A resource publishes by ``engine.events.publish(kind, action, actor, attributes)``;
containers, networks and volumes need not: their events come from the port layer.
"""
