#!/bin/sh
# Print the path of a Python that can run the hub and make a virtual environment; explain on stderr when there is none.
# Each candidate is run, not only looked up: a version manager's shim may stand in the PATH for a Python that is not there.
# Of one version the system's own comes first: distributions build it with profile-guided optimisation, version managers
# seldom do, and the hub then spends a tenth less CPU (docs/decisions/0006).
set -u

without_venv=
for name in python3.14 python3.13 python3.12 python3.11 python3; do
    for python in "/usr/bin/$name" "$name"; do
        "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null || continue
        if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
            command -v "$python"
            exit 0
        fi
        without_venv=$python
    done
done

if [ -n "$without_venv" ]; then
    version=$("$without_venv" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    echo "$without_venv is Python $version but cannot make a virtual environment: its modules venv and ensurepip are missing." >&2
    echo "Install them (Debian, Ubuntu: apt-get install python$version-venv) and run the same command again." >&2
else
    echo "No Python 3.11, 3.12, 3.13 or 3.14 found in the PATH (python3 is: $(python3 --version 2>/dev/null || echo absent))." >&2
    echo "Install one of them together with its venv module (Debian, Ubuntu: apt-get install python3 python3-venv)" >&2
    echo "and run the same command again." >&2
fi
exit 1
