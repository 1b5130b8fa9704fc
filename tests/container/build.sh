#!/usr/bin/env bash
# Builds the image's CPU variant without a container engine or an image registry: debootstrap makes the
# base, buildah builds. pip's settings of this machine go in as a build secret, with the local folders
# that they name.
#
#   tests/container/build.sh IMAGE
set -euo pipefail
cd "$(dirname "$0")/../.."
image=$1
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

if ! buildah inspect --type image localhost/lfreeze-base > /dev/null 2>&1; then
  mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' \
    /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list 2> /dev/null | head -1 || true)
  debootstrap --variant=minbase bookworm "$scratch/base" "$mirror" > "$scratch/debootstrap.log" 2>&1 \
    || { tail -20 "$scratch/debootstrap.log" >&2; exit 1; }
  tar -C "$scratch/base" --exclude=./var/cache/apt/archives --exclude=./var/lib/apt/lists -c . > "$scratch/base.tar"
  rm -rf "$scratch/base"
  container=$(buildah from scratch)
  buildah add --quiet "$container" "$scratch/base.tar" / > /dev/null
  buildah commit --quiet --rm "$container" localhost/lfreeze-base > /dev/null
  rm "$scratch/base.tar"
fi

# pip's settings as a pip.conf, and every local path in them as a volume of the build, under /pip.
python3 - "$scratch" <<'PYTHON'
import os, subprocess, sys
from pathlib import Path

listed = subprocess.run([sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True)
values = {}
for line in listed.stdout.splitlines():
    name, _, value = line.partition("=")
    values[name.split(".", 1)[1]] = value.strip("'")
values.pop("constraint", None)
words = " ".join(values.values()).split()
# An index points to files beside its folder.
paths = {w if w.startswith("/") else os.path.dirname(w[7:]) for w in words if w.startswith(("/", "file:///"))}
conf = ["[global]\n"]
for name, value in values.items():
    local = [f"file:///pip{w[7:]}" if w.startswith("file:///") else f"/pip{w}" if w.startswith("/") else w for w in value.split()]
    conf.append(f"{name} = {' '.join(local)}\n")
(Path(sys.argv[1]) / "pip.conf").write_text("".join(conf))
(Path(sys.argv[1]) / "volumes").write_text("".join(f"--volume={p}:/pip{p}:ro\n" for p in sorted(paths) if os.path.exists(p)))
PYTHON
mapfile -t volumes < "$scratch/volumes"

buildah build --isolation chroot --layers "${volumes[@]}" \
  --secret "id=pip,src=$scratch/pip.conf" \
  --build-arg BASE_IMAGE=localhost/lfreeze-base --build-arg VARIANT=cpu \
  --build-arg "COMMIT=$(git describe --always --abbrev=40 --dirty)" \
  --tag "$image" . > "$scratch/build.log" 2>&1 || { tail -60 "$scratch/build.log" >&2; exit 1; }
