"""Networks of container VMs on a `qemu` host.

* ``manager``: :class:`NetworkManager`, the public face; orders of the steps
* ``registry``, ``ipam``: which networks and leases there are (pure)
* ``switch``, ``guest``: what a plugged container needs: taps, rules, names, the guest's settings (pure)
* ``ruleset``, ``nft``, ``nftsets``, ``firewall``: packet rules: data, text, elements, application
* ``watch``: noticing that somebody else changed them
* ``coexist``: other firewalls of the host; ``conntrack``: old flows
* ``ports``, ``sockets``: published ports and the sockets that hold them
* ``links``: bridges, taps, addresses, sysctls
* ``names``, ``query``, ``dns``, ``dnsserver``, ``resolvconf``: the embedded DNS
* ``store``, ``poollock``: files, and the lock between VCHs

What an administrator must know: net.ipv4.ip_forward (and net.ipv6.conf.all.forwarding
with IPv6 networks) is set when the first network needs it and never reset;
route_localnet is set on our own bridges only; rules go into iptables'
DOCKER-USER, FORWARD and INPUT when those drop by default, and are removed with
the network. ``python -m portlayer.network remove VCH_ID`` removes all that a
VCH left on a host.
"""

from portlayer.network.attachment import Attachment, PluggedNic
from portlayer.network.manager import NetworkManager

__all__ = ["Attachment", "NetworkManager", "PluggedNic"]
