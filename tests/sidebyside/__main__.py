"""Record the script's transcript: ``python -m tests.sidebyside dockerd`` or ``mooring``."""

from __future__ import annotations

import json
import sys

from tests.sidebyside.recording import run_script
from tests.sidebyside.transcript import PLACE

which = sys.argv[1]
entries = [entry.as_json() for entry in run_script(which)]
(PLACE / f"{which}.json").write_text(json.dumps(entries, indent=1, ensure_ascii=False) + "\n")
