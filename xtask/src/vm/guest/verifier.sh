# What the verifier says of each program.
if ./bench programs --verifier "$@"; then
  echo "vm: pass every program is accepted"
else
  echo "vm: fail not every program is accepted"
  exit 1
fi
