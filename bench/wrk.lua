-- Sends the requests in the files that it is given, in turn; says at the end what came of them, as JSON.

local requests, turn = {}, 0

function init(arguments)
  for number = 1, #arguments do
    local file = assert(io.open(arguments[number], "rb"))
    requests[number] = file:read("*a")
    file:close()
  end
end

function request()
  turn = turn % #requests + 1
  return requests[turn]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  io.write(string.format(
    '{"whole": %d, "bytes": %.0f, "seconds": %f, "p50": %f, "p99": %f, "failed": %d}\n',
    summary.requests, summary.bytes, summary.duration / 1e6, latency:percentile(50), latency:percentile(99), failed
  ))
end
