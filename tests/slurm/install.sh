#!/bin/sh
# Installs the Slurm that tests/slurm starts: Debian packages, no service is enabled or started.
set -eu
for program in slurmctld slurmd slurmdbd mariadbd munged srun; do
    command -v "$program" > /dev/null || missing=1
done
[ -n "${missing:-}" ] || exit 0
apt-get update -q
DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends \
    slurmctld slurmd slurm-client munge iproute2 slurmdbd mariadb-server-core
