#!/bin/bash
# Install what some make targets use from Debian's own packages (as root, Debian 12 or Ubuntu 24.04):
#   deploy/debian.sh bench     nginx, wrk, gcc       for make bench
#   deploy/debian.sh ui        chromium              for make ui-test
#   deploy/debian.sh metrics   prometheus, promtool  for the checks of dashboards and alert rules
#   deploy/debian.sh           all of them
# They are for the project's own checks: nothing is started, and the router itself needs none of them.
set -euo pipefail

declare -A packages=(
  [bench]="nginx-light wrk gcc libc6-dev"
  [ui]="chromium fonts-dejavu-core"
  [metrics]="prometheus"
)

wanted=()
for group in "${@:-bench}" $([ $# -gt 0 ] || echo ui metrics); do
  [ -n "${packages[$group]:-}" ] || { echo "no group '$group'; there are: ${!packages[*]}" >&2; exit 2; }
  read -ra names <<<"${packages[$group]}"
  wanted+=("${names[@]}")
done

missing=()
for name in "${wanted[@]}"; do
  [ "$(dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null || true)" = installed ] || missing+=("$name")
done
[ ${#missing[@]} -gt 0 ] || { echo "already installed: ${wanted[*]}"; exit 0; }
[ "$(id -u)" = 0 ] || { echo "run as root: apt-get install ${missing[*]}" >&2; exit 1; }

# Debian starts a freshly installed server at once; a policy that says no keeps port 80 and 9090 free.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod +x "$policy"
  trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update --quiet=2
apt-get install --quiet=2 --yes --no-install-recommends "${missing[@]}" >/dev/null
echo "installed: ${missing[*]}"
