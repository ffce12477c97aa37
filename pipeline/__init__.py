"""The command line, the configuration and the chaining of the three jobs.

`stages` and `data` are common names, and a user's folder may well have a package of either name on the import path.
The three packages are one program: they are taken from beside this file, whatever the path says.
"""

import importlib.util
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # read where huggingface_hub is imported

_ROOT = Path(__file__).resolve().parent.parent

for _name in ("stages", "data"):
    _folder = _ROOT / _name
    _loaded = sys.modules.get(_name)
    if _loaded is None or Path(_loaded.__file__ or "").resolve().parent != _folder:
        _spec = importlib.util.spec_from_file_location(
            _name, _folder / "__init__.py", submodule_search_locations=[str(_folder)]
        )
        assert _spec is not None and _spec.loader is not None
        _module = importlib.util.module_from_spec(_spec)
        sys.modules[_name] = _module
        _spec.loader.exec_module(_module)
