# Run as root in a mount namespace of its own, in an empty directory, with the program. Every line has to hold.
set -eu
step() { echo "--- $*"; }

# A directory and a device that everybody may use, as on most systems.
mount -t tmpfs -o dev,mode=755 none "$1"
cd "$1"
mknod -m 666 fuse c 10 229
mount --bind fuse /dev/fuse
trap 'umount -l "$1/mnt" 2>/dev/null || true' EXIT
cp "$2" coffer
coffer=$1/coffer
mkdir home session mnt bucket roots
echo 'correct horse battery staple' >pass
chmod 600 pass
chmod 700 home session bucket
chown nobody:nogroup home session mnt bucket pass

# Root's own environment, of which sudo passes nothing on; that user has no home on this system and gets one here.
export HOME=/root XDG_RUNTIME_DIR=/run/user/0 XDG_STATE_HOME=/root/state
user() { sudo -n -u nobody env "$@" </dev/null; }
outside() { user "HOME=$PWD/home" "$coffer" "$@"; }
session() { user "HOME=$PWD/home" "XDG_RUNTIME_DIR=$PWD/session" "$coffer" "$@"; }
# Ends with this code and says these words.
refused() {
  local code=$1 words=$2 got=0
  shift 2
  "$@" >said 2>&1 || got=$?
  cat said
  [ "$got" = "$code" ] && grep -qF "$words" said
}

step "what a mount by sudo -u leaves is that user's, and closed"
outside init "$PWD/bucket" --kdf-log-n 15 --passphrase-file "$PWD/pass" --save-recovery-code "$PWD/home/code"
outside mount "$PWD/bucket" "$PWD/mnt" --passphrase-file "$PWD/pass"
[ -e home/.local/state/coffer/mount.log ]
[ -n "$(find home/.local/state/coffer/run -name '*.sock' -user nobody -perm 600)" ]
[ -z "$(find home -not -user nobody)" ]
[ -z "$(find home/.local/state/coffer -perm /077)" ]

step "it is found from outside of a login, and from a login"
outside status | grep -F "$PWD/mnt"
session status | grep -F "$PWD/mnt"
session sync "$PWD/mnt"

step "root is told whose it is"
for verb in status sync umount; do
  refused 24 "the volume at $PWD/mnt is mounted by another user (uid 65534)" "$coffer" "$verb" "$PWD/mnt"
  grep -F "hint: only that user can ask it: \`sudo -u '#65534' coffer ...\`" said
done
session umount "$PWD/mnt"

step "one that was begun in a login is told from outside of it, if it cannot be found"
session mount "$PWD/bucket" "$PWD/mnt" --passphrase-file "$PWD/pass"
refused 24 'but its control socket is not where this process looks' outside status "$PWD/mnt"
session umount "$PWD/mnt"

step "a home that was kept is refused, and nothing is made there"
refused 22 "which is another user's; \`sudo -H\` sets it" \
  user "HOME=$PWD/roots" "$coffer" mount "$PWD/bucket" "$PWD/mnt" --passphrase-file "$PWD/pass"
[ -z "$(ls -A roots)" ]
umount /dev/fuse
echo "all of it holds"
