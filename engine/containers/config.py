"""Docker's ``Config``, the networking part of a create request, and their nested models."""

# Field names are the wire's.

from __future__ import annotations

from typing import Any

from pydantic import Field

from engine.containers import hostconfig
from engine.containers.model import Int, Text, Texts, WireModel, Words

__all__ = ["Config", "CreateRequest", "EndpointIpam", "EndpointSettings", "HealthSpec", "NetworkingSpec"]


class HealthSpec(WireModel):
    Test: Texts = Field(default_factory=list)
    Interval: Int = 0
    Timeout: Int = 0
    StartPeriod: Int = 0
    StartInterval: Int = 0
    Retries: Int = 0


class Config(WireModel):
    Hostname: Text = ""
    Domainname: Text = ""
    User: Text = ""
    AttachStdin: bool = False
    AttachStdout: bool = False
    AttachStderr: bool = False
    ExposedPorts: dict[Text, Any] = Field(default_factory=dict)
    Tty: bool = False
    OpenStdin: bool = False
    StdinOnce: bool = False
    Env: Texts = Field(default_factory=list)
    Cmd: Words | None = None
    Healthcheck: HealthSpec | None = None
    ArgsEscaped: bool = False
    Image: Text = ""
    Volumes: dict[Text, Any] = Field(default_factory=dict)
    WorkingDir: Text = ""
    Entrypoint: Words | None = None
    NetworkDisabled: bool = False
    MacAddress: Text = ""
    OnBuild: Texts | None = None
    Labels: dict[Text, Text] = Field(default_factory=dict)
    StopSignal: Text = ""
    StopTimeout: Int | None = None
    Shell: Words | None = None


class EndpointIpam(WireModel):
    IPv4Address: Text = ""
    IPv6Address: Text = ""
    LinkLocalIPs: Texts = Field(default_factory=list)


class EndpointSettings(WireModel):
    """How a container joins one network. The lower half is output: clients echo it and it is ignored."""

    IPAMConfig: EndpointIpam | None = None
    Links: Texts = Field(default_factory=list)
    Aliases: Texts = Field(default_factory=list)
    MacAddress: Text = ""
    DriverOpts: dict[Text, Text] = Field(default_factory=dict)
    GwPriority: Int = 0

    NetworkID: Text = ""
    EndpointID: Text = ""
    Gateway: Text = ""
    IPAddress: Text = ""
    IPPrefixLen: Int = 0
    IPv6Gateway: Text = ""
    GlobalIPv6Address: Text = ""
    GlobalIPv6PrefixLen: Int = 0
    DNSNames: Texts = Field(default_factory=list)


class NetworkingSpec(WireModel):
    EndpointsConfig: dict[Text, EndpointSettings | None] = Field(default_factory=dict)


class CreateRequest(Config):
    """``name`` and ``platform`` belong into the query; dockerode repeats them here."""

    name: Text = ""
    platform: Text = ""
    HostConfig: hostconfig.HostConfig = Field(default_factory=hostconfig.HostConfig)
    NetworkingConfig: NetworkingSpec = Field(default_factory=NetworkingSpec)

    def config(self) -> Config:
        return Config.model_validate(
            {name: getattr(self, name) for name in Config.model_fields if name in self.model_fields_set}
        )
