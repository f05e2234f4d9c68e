#!/bin/sh
# One of several processes of which one leads: sh node.sh NAME
name=$1
app=${APP:-http://127.0.0.1:9901}
while :; do
  # Waits at the store until the one that leads gives up or is gone.
  token=$(curl -s "$app/v1/leases/leader/acquire" \
    -d "{\"owner\":\"$name\",\"ttl\":\"2s\",\"wait\":\"30s\"}" |
    sed -n 's/.*"token":\([0-9]*\).*/\1/p')
  [ -n "$token" ] || { sleep 1; continue; }
  echo "$name leads with token $token"
  # Every write carries the token: one that slept through its lease is refused.
  while curl -sf -o /dev/null -X PUT "$app/v1/state/led-by" -H "If-Fence: leader:$token" -d "$name" &&
    curl -sf -o /dev/null "$app/v1/leases/leader/renew" -d "{\"token\":$token,\"ttl\":\"2s\"}"; do
    sleep 0.5
  done
  echo "$name leads no more"
done
