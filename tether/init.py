"""placeholder, replaced by the guest branch"""

import sys


def main() -> None:
    sys.stdout.write("tether ready\n")
