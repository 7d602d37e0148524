-- A hundred events of a hundred sessions a request, out of 20,000 visitors.
local names = { "page_view", "view_item", "view_item", "view_item_list", "add_to_cart", "search" }
local counter = math.random(1, 1000000) * 1000
local before, after = {}, {}
for v = 1, 20000 do
  before[v] = string.format('{"visitor":"v%d","id":"e', v)
end
for n = 0, 59 do
  after[n] = string.format(
    '","name":"%s","page":"/product/:id","item":"shoes-%02d","category":"shoes","price":%d.5,"channel":"organic","device":"mobile"}',
    names[n % 6 + 1], n, n % 90 + 5)
end
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local path = os.getenv("LOTSE_PATH") or "/v1/events"
request = function()
  local events, first = {}, math.random(1, 199) * 100
  for n = 1, 100 do
    counter = counter + 1
    events[n] = before[first + n] .. counter .. after[counter % 60]
  end
  return wrk.format(nil, path, nil, "[" .. table.concat(events, ",") .. "]")
end
