# Starts `lbr run` with each way of attaching, looks whether everything is attached, ends it, and looks whether
# `lbr cleanup` leaves nothing.

# lbr refuses with a message if the kernel lacks a feature; these are the first kernels that have it.
LEAST=5.10 # lbr at all
TCX=6.6    # --attach tcx
XDP=5.18   # --xdp
WAYS=("auto off" "tcx off" "clsact off" "auto native" "auto generic")
START=300 # seconds until `lbr run` must be in force: emulation is slow

# Whether this kernel is of a version or newer.
since() {
  local own wanted
  IFS=. read -ra own <<<"$(uname -r)"
  IFS=. read -ra wanted <<<"$1"
  ((own[0] * 1000 + own[1] >= wanted[0] * 1000 + wanted[1]))
}
now() { cut -d' ' -f1 /proc/uptime; }
seconds() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }
# Runs a command until it succeeds, for some seconds.
soon() {
  local count=$(($1 * 10))
  shift
  until "$@"; do
    ((count-- > 0)) || return 1
    sleep 0.1
  done
}
programs() { bpftool prog show | grep -oE '^[0-9]+:' | sort; }
# The log's last lines, or those with a word.
message() { grep -v '^$' /tmp/log | tail -n "$1"; }
line_with() { grep -i -m 1 "$1" /tmp/log; }

# A pod's link and an uplink with a gateway behind it.
ip netns add pod
ip link add pod0 type veth peer name eth0 netns pod
ip -n pod addr add 10.244.1.5/32 dev eth0
ip -n pod link set eth0 up
ip link set pod0 up
ip route add 10.244.1.5 dev pod0
ip netns add wire
ip link add up0 type veth peer name wire0 netns wire
ip -n wire addr add 172.20.0.254/24 dev wire0
ip -n wire link set wire0 up
ip addr add 172.20.0.1/24 dev up0
ip link set up0 up
ip route add default via 172.20.0.254
mkdir -p /tmp/manifests

# Whether the programs of a link are attached, by tcx (pinned) or by clsact (a filter).
attached() { # INTERFACE PROGRAM DIRECTION
  local index
  index=$(cat "/sys/class/net/$1/ifindex")
  case $how in
  tcx) [ -e "/sys/fs/bpf/lbr/attached/$index-$2" ] ;;
  clsact) tc filter show dev "$1" "$3" | grep -q "$2" ;;
  esac
}
all_attached() {
  attached pod0 from_pod ingress && attached pod0 to_pod egress && attached up0 from_netdev ingress || return
  case $xdp in
  off) ! ip link show up0 | grep -q xdp ;;
  native) ip link show up0 | grep -q ' xdp ' ;;
  generic) ip link show up0 | grep -q xdpgeneric ;;
  esac
}
in_force() { grep -qw ready /tmp/log || [ -z "$(jobs -pr)" ]; }
nothing_left() { [ "$(programs)" = "$before" ] && [ ! -e /sys/fs/bpf/lbr ]; }

# Whether this kernel can do what is tried, by design.
possible() { since $LEAST && { [ "$attach" != tcx ] || since $TCX; } && { [ "$xdp" = off ] || since $XDP; }; }
# The message of lbr about a missing feature. It may end, or go on without the feature.
reason() { line_with 'not in force' || { [ "$xdp" != off ] && line_with xdp; } || message 1; }

# Tries one way. Says in $fault what is wrong, or in $refused how lbr said no.
try() {
  fault='' refused='' took=''
  local start agent
  how=$attach
  [ "$how" = auto ] && { since $TCX && how=tcx || how=clsact; }
  start=$(now)
  : >/tmp/log
  RUST_BACKTRACE=0 ./lbr run --node-name vm --manifests /tmp/manifests --attach "$attach" --xdp "$xdp" >/tmp/log 2>&1 &
  agent=$!
  if ! soon $START in_force; then
    fault="not in force after $START s"
  elif [ -z "$(jobs -pr)" ]; then
    fault="lbr run ended before it was in force"
  else
    took=$(seconds "$start")
    soon 10 all_attached || fault="not everything is attached"
  fi
  if [ -n "$fault" ] && ! possible; then
    refused=$(reason | cut -c 1-400)
    [ -n "$refused" ] && fault=''
  elif [ -n "$fault" ]; then
    bpftool net show
    ls /sys/fs/bpf/lbr/attached
    ip link show up0
  fi
  kill -TERM $agent 2>/dev/null
  ended() { [ -z "$(jobs -pr)" ]; }
  soon 60 ended || { fault=${fault:-SIGTERM does not end it}; kill -KILL $agent; }
  wait $agent 2>/dev/null
  ./lbr cleanup >/tmp/cleanup 2>&1 || { fault=${fault:-lbr cleanup failed}; cat /tmp/cleanup; }
  soon 10 nothing_left || { fault=${fault:-lbr cleanup leaves something}; bpftool prog show; ls /sys/fs/bpf; }
}

before=$(programs)
failed=0
for way in "${WAYS[@]}"; do
  read -r attach xdp <<<"$way"
  try
  name="--attach $attach --xdp $xdp"
  message 25 | cut -c 1-400
  if [ -n "$fault" ]; then
    echo "vm: fail $name: $fault"
    failed=1
  elif [ -n "$refused" ]; then
    echo "vm: refused $name: $refused"
  else
    echo "vm: pass $name: in force after $took s"
  fi
done
exit $failed
