"""``/_ping``, ``/version``, ``/info``, ``/system/df``."""
