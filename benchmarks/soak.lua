-- A slice of mixed requests: events, arrays of 20, scores of vectors, and what must be refused. Each says in its id how it
-- is to be answered, and the service gives the id back.
local names = { "page_view", "view_item", "view_item", "view_item_list", "add_to_cart", "search", "purchase" }
local bad = {
  { 422, '{"visitor": "x", "name": "page_view", "price": -1}' },
  { 422, '{"visitor": "x"}' },
  { 400, "{" },
  { 422, '[{"visitor": "x", "name": "page_view"}, {"visitor": 7, "name": "page_view"}]' },
}
local slice = tonumber(os.getenv("LOTSE_SLICE"))
local vectors = os.getenv("LOTSE_VECTORS")
local counter, threads = 0, {}
wrong, answers = 0, 0
math.randomseed(slice)

local function event()
  counter = counter + 1
  -- some thousand visitors, who stay for two slices; one in five may be known again
  local consent = counter % 5 == 0 and '["measure","link"]' or '["measure"]'
  return string.format(
    '{"visitor":"g%d-%d","id":"%d-%d","name":"%s","page":"/product/:id","item":"shoes-%d","price":%d.5,"channel":"organic","device":"mobile","consent":%s}',
    math.floor(slice / 2), math.random(1, 4000), slice, counter, names[counter % 7 + 1], counter % 60, counter % 90 + 5, consent)
end

function setup(thread)
  table.insert(threads, thread)
end

function request()
  -- out of a hundred: 4 arrays, 4 of vectors, 6 bad ones
  local kind, path, status, body = math.random(1, 100), "/v1/events", 200, nil
  if kind <= 4 then
    local events = {}
    for number = 1, 20 do events[number] = event() end
    body = "[" .. table.concat(events, ",") .. "]"
  elseif kind <= 8 then
    path, body = "/v1/score", vectors
  elseif kind <= 14 then
    status, body = unpack(bad[math.random(1, #bad)])
  else
    body = event()
  end
  local headers = { ["Content-Type"] = "application/json", ["X-Request-Id"] = string.format("is-%d", status) }
  return wrk.format("POST", path, headers, body)
end

function response(status, headers)
  answers = answers + 1
  for name, value in pairs(headers) do
    if name:lower() == "x-request-id" and value == "is-" .. status then return end
  end
  wrong = wrong + 1
end

function done(summary, latency)
  local mistaken, answered = 0, 0
  for _, thread in ipairs(threads) do
    mistaken, answered = mistaken + thread:get("wrong"), answered + thread:get("answers")
  end
  local errors = summary.errors
  io.write(string.format("\nsoak %d %d %d %f %f\n", answered, mistaken,
    errors.connect + errors.read + errors.write + errors.timeout, latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
