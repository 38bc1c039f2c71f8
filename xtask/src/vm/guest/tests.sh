# One test binary, `binary`, with arguments.
./binary "$@"
