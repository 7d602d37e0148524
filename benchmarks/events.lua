-- One event a request, 20,000 visitors (LOTSE_VISITORS), a few event names: what a shop's tracker sends.
local names = { "page_view", "view_item", "view_item", "view_item_list", "add_to_cart", "search" }
local counter = 0
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local path = os.getenv("LOTSE_PATH") or "/v1/events"
local visitors = tonumber(os.getenv("LOTSE_VISITORS") or "20000")
request = function()
  counter = counter + 1
  local body = string.format(
    '{"visitor":"v%d","id":"e%d","name":"%s","page":"/product/:id","item":"shoes-%02d","category":"shoes","price":%d.5,"channel":"organic","device":"mobile"}',
    math.random(1, visitors), counter * 1000 + math.random(0, 999), names[counter % 6 + 1], counter % 60, counter % 90 + 5)
  return wrk.format(nil, path, nil, body)
end
