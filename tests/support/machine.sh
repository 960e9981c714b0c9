# A machine from this one: `sh machine.sh DIRECTORY`, in a mount namespace of its own. Becomes systemd as process 1.
#
# The root is an overlay, of which nothing is left afterwards; /dev, /run, /tmp, cgroups and processes are the machine's own, the
# network is the caller's. Its units are those of /etc/systemd/system, which holds what is put there and stubs for the targets.
set -e
if [ "$2" != inside ]; then
    mount --make-rprivate /
    mount -t tmpfs tmpfs "$1"
    mkdir "$1/upper" "$1/work" "$1/root" "$1/cgroup"
    mount -t cgroup2 cgroup2 "$1/cgroup"
    mkdir "$1/cgroup/relay-tests-$$"
    echo $$ >"$1/cgroup/relay-tests-$$/cgroup.procs"
    exec unshare --pid --fork --kill-child --cgroup --uts --ipc sh "$0" "$1" inside
fi
umount "$1/cgroup"
root=$1/root
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$root"
cd "$root"
mount -t proc proc proc
mount -t sysfs sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
for folder in dev run tmp etc/systemd/system; do mount -t tmpfs tmpfs "$folder"; done
mkdir dev/pts dev/shm run/old
for node in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${node%:*}" c 1 "${node#*:}"; done
mknod -m 666 dev/tty c 5 0
ln -s pts/ptmx dev/ptmx
cp /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-journald.socket etc/systemd/system/
for unit in basic.target shutdown.target network-online.target multi-user.target; do printf '[Unit]\nDefaultDependencies=no\n' >"etc/systemd/system/$unit"; done
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.socket systemd-journald.service\n' >etc/systemd/system/sysinit.target
printf '[Unit]\nDefaultDependencies=no\nWants=sysinit.target\n' >etc/systemd/system/default.target
pivot_root . run/old
umount -l /run/old
rmdir /run/old
exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root container=other \
    SYSTEMD_UNIT_PATH=/etc/systemd/system /lib/systemd/systemd --system --log-target=console --show-status=no
