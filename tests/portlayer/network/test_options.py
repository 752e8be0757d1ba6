import pytest

from portlayer.errors import PortLayerError
from portlayer.network.options import BridgeOptions, parse_endpoint_options, parse_options
from portlayer.portlayer_pb2 import Reason


def test_all_that_is_honoured() -> None:
    assert parse_options(
        {
            "com.docker.network.bridge.name": "br-mine",
            "com.docker.network.driver.mtu": "1400",
            "com.docker.network.bridge.enable_icc": "false",
            "com.docker.network.bridge.enable_ip_masquerade": "False",
            "com.docker.network.bridge.host_binding_ipv4": "127.0.0.1",
            "com.docker.network.container_iface_prefix": "net",
            "com.docker.network.bridge.gateway_mode_ipv4": "nat",
            "com.docker.network.bridge.default_bridge": "false",
        }
    ) == BridgeOptions(
        name="br-mine",
        mtu=1400,
        icc=False,
        masquerade=False,
        host_binding="127.0.0.1",
        interface_prefix="net",
    )


def test_defaults() -> None:
    assert parse_options({}) == BridgeOptions()
    assert parse_options({"com.docker.network.bridge.host_binding_ipv4": "0.0.0.0"}).host_binding == ""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("com.docker.network.bridge.inhibit_ipv4", "true"),
        ("com.docker.network.bridge.gateway_mode_ipv4", "routed"),
        ("com.docker.network.bridge.default_bridge", "true"),
        ("bridge.name", "br0"),
        ("anything", ""),
    ],
)
def test_unknown_options_are_refused_by_name(key: str, value: str) -> None:
    with pytest.raises(PortLayerError, match=key) as caught:
        parse_options({key: value})
    assert caught.value.reason == Reason.NOT_SUPPORTED


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bridge.name", ""),
        ("bridge.name", "a" * 16),
        ("bridge.name", "../x"),
        ("bridge.name", "-x"),
        ("bridge.name", 'x"'),
        ("driver.mtu", "67"),
        ("driver.mtu", "65536"),
        ("driver.mtu", "1e3"),
        ("driver.mtu", "٣٠٠"),
        ("bridge.enable_icc", "maybe"),
        ("bridge.host_binding_ipv4", "::1"),
        ("container_iface_prefix", "eth0/"),
    ],
)
def test_bad_values_are_refused(key: str, value: str) -> None:
    with pytest.raises(PortLayerError, match="invalid value"):
        parse_options({f"com.docker.network.{key}": value})


def test_endpoint_options() -> None:
    assert parse_endpoint_options({}).interface == ""
    assert parse_endpoint_options({"com.docker.network.endpoint.ifname": "wan"}).interface == "wan"
    with pytest.raises(PortLayerError, match=r"com\.docker\.network\.endpoint\.sysctls"):
        parse_endpoint_options({"com.docker.network.endpoint.sysctls": "x"})
