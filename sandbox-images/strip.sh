#!/bin/sh
# strip.sh ROOT NAME SCRATCH: what mmdebstrap runs on the files of an image before it packs them. Nothing in them can
# raise privileges, and nothing of the installation stays: what it leaves differs from one build to the next.
set -eu
root=$1 name=$2 scratch=$3
dpkg-query --admindir="$root/var/lib/dpkg" --show \
  --showformat='${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}\n' | LC_ALL=C sort >"$scratch/$name.packages"
if [ "$name" != base ]; then
  install -m 0555 "$scratch/harness" "$root/harness"
  echo 'sandbox:x:65532:65532:sandbox:/work:/usr/sbin/nologin' >>"$root/etc/passwd"
  echo 'sandbox:x:65532:' >>"$root/etc/group"
  mkdir -p "$root/work" "$root/run/interlock"
  find "$root" -xdev -type f -perm /6000 -exec chmod a-s {} +
  rm -f "$root"/var/lib/dpkg/*-old
fi
find "$root/var/cache" "$root/var/log" "$root/var/lib/apt/lists" -type f -delete
rm -rf "$root"/usr/share/doc/* "$root"/usr/share/man/* \
  "$root"/usr/share/locale/* "$root"/usr/share/info/* "$root"/usr/share/lintian/* "$root"/tmp/* "$root"/var/tmp/* \
  "$root"/root/.[!.]* "$root"/etc/machine-id "$root"/etc/hostname "$root"/etc/resolv.conf
find "$root" -xdev -name __pycache__ -type d -prune -exec rm -rf {} +
