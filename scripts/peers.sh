#!/bin/sh
# Makes .venv-peers beside .venv and runs the comparison with foolbox, torchattacks and ART in it. Safe to repeat.
#
#     sh scripts/peers.sh [options of pytest]
#
# The second environment builds on the first: it sees all of .venv through one .pth file and holds the peers alone, so
# torch is the same in both and is not installed twice. Its own folder comes first on sys.path.
set -eu
cd "$(dirname "$0")/.."

base=.venv/bin/python
peers=.venv-peers/bin/python

if [ ! -x "$base" ]; then
    echo "scripts/peers.sh: there is no .venv; make it first: python -m venv .venv && .venv/bin/pip install -e '.[dev]'" >&2
    exit 3
fi

[ -x "$peers" ] || "$base" -m venv --without-pip .venv-peers # pip, too, is the one of .venv
folder="import sysconfig; print(sysconfig.get_path('purelib'))"
# addsitedir, not a bare path: it also reads the .pth files in there, such as the one of an editable install.
echo "import site; site.addsitedir('$("$base" -c "$folder")')" >"$("$peers" -c "$folder")/base.pth"

# What the peers ask for beyond .venv; then the peers, pinned, for the comparison is one of tensors, and without their
# dependencies, for torchattacks insists on requests 2.25 of 2020.
"$peers" -m pip install --quiet eagerpy GitPython requests scikit-learn six tqdm
"$peers" -m pip install --quiet --no-deps foolbox==3.3.4 torchattacks==3.5.1 adversarial-robustness-toolbox==1.20.1

"$peers" - "$("$base" -c "import torch; print(torch.__version__)")" <<'PYTHON'
import sys
from importlib.metadata import version

for name in ("robustcli", "torch", "numpy", "foolbox", "torchattacks", "adversarial-robustness-toolbox"):
    print(f"{name} {version(name)}")
if version("torch") != sys.argv[1].partition("+")[0] and version("torch") != sys.argv[1]:
    sys.exit(f".venv-peers has torch {version('torch')}, .venv has {sys.argv[1]}: remove .venv-peers and repeat")
PYTHON

exec "$peers" -m pytest -m reference tests/reference "$@"
