#!/bin/sh
# A night as one SLURM job that submits the jobs of its workers itself: sbatch deploy/slurm/night.sh CONFIG [CLUSTER]
# Killed, requeued or run again by hand, it goes on from what is committed.
#SBATCH --job-name=gzscale-night
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=2
#SBATCH --mem=8G
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --output=slurm-night-%j.log
set -eu
: "${1:?usage: sbatch night.sh CONFIG [CLUSTER]}"
# The job's own limits are not those of the jobs that it submits.
unset SLURM_MEM_PER_NODE SLURM_MEM_PER_CPU SLURM_CPUS_PER_TASK
exec gzscale night "$1" --cluster "${2:-slurm-gpu}"
