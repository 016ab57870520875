-- For wrk: posts the bodies of a file, each of one size, one after the other, and says when so many were answered.
-- Arguments: file, bytes of a body, answers to wait for, media type.
local bodies, size, wanted
local sent, seen, good = 0, 0, 0

function init(arguments)
  local file = assert(io.open(arguments[1], "rb"))
  bodies = file:read("*a")
  file:close()
  size, wanted = tonumber(arguments[2]), tonumber(arguments[3])
  wrk.method = "POST"
  wrk.headers["Content-Type"] = arguments[4]
end

function request()
  local at = sent % (#bodies / size) * size
  sent = sent + 1
  return wrk.format(nil, nil, nil, bodies:sub(at + 1, at + size))
end

local function say(what, number)
  print(what .. " " .. number)
  io.stdout:flush()
end

function response(status)
  if seen == 0 then say("begun", 1) end
  seen = seen + 1
  if status == 200 then good = good + 1 end
  if seen == wanted then say("good", good) end
end
