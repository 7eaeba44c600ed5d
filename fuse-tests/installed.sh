# Run inside a throw-away copy of the system, as root. Every line has to hold.
set -eu

step() { echo "--- $*"; }

step "install"
dpkg -i /coffer.deb
coffer --version
mkdir /srv/volume /vault
mkdir -p /etc/coffer
echo 'four words of old' >/etc/vault.pass
chmod 600 /etc/vault.pass
cat >/etc/coffer/config.toml <<'TOML'
[volume.photos]
url = "/srv/volume"
mountpoint = "/vault"
passphrase-file = "/etc/vault.pass"
TOML
export HOME=/root
coffer init photos --kdf-log-n 15 --save-recovery-code /root/code

step "fstab, mount(8) and umount(8), which waits until everything is in the bucket"
echo '/srv/volume /vault coffer passphrase-file=/etc/vault.pass,commit_age=1h,_netdev,nofail,noauto 0 0' >/etc/fstab
mount /vault
head -c 3000000 /dev/urandom >/root/file
cp /root/file /vault/file
umount /vault
# Its process has ended too.
if coffer status /vault; then exit 1; elif [ $? -ne 24 ]; then exit 1; fi
mount -t fuse.coffer photos /vault -o noatime
cmp /root/file /vault/file
grep ' /vault fuse.coffer ' /proc/mounts
umount -v /vault

step "umount -i asks no helper: the mount is busy until it is safe"
mount /vault
cp /root/file /vault/second
if umount -i /vault; then exit 1; fi
coffer sync /vault
umount -i /vault

step "units"
systemd-analyze verify --man=no coffer@photos.service
XDG_RUNTIME_DIR=/tmp systemd-analyze --user verify --man=no /usr/lib/systemd/user/coffer@.service
mkdir /generated
/usr/lib/systemd/system-generators/systemd-fstab-generator /generated /generated /generated
cat /generated/vault.mount
grep -x 'Type=coffer' /generated/vault.mount

step "manual and completions"
for page in /usr/share/man/man1/coffer*.gz; do
  man --warnings -l -Tutf8 "$page" 2>/tmp/warnings >/tmp/page
  if [ -s /tmp/warnings ]; then echo "$page:" && cat /tmp/warnings && exit 1; fi
done
man -l /usr/share/man/man8/mount.coffer.8.gz | grep -q 'Mount a volume'
bash -ec '. /usr/share/bash-completion/completions/coffer
  COMP_WORDS=(coffer um); COMP_CWORD=1
  _coffer coffer um coffer
  [ "${COMPREPLY[*]}" = umount ]'

step "purge"
dpkg -P coffer
for left in /usr/bin/coffer /usr/sbin/mount.coffer /usr/lib/systemd/system/coffer@.service; do
  if [ -e "$left" ]; then exit 1; fi
done
echo "all of it holds"
