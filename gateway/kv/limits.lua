-- One step of the shared limiter. What it promises is written once, in core/resources.py, and tested together with
-- the limiter in memory; here is how it is kept on Redis, in one round trip and by the server's own clock.
--
-- KEYS  one a meter. A window (requests, tokens) is a hash: a field for each second in which something was used,
--       `sum` of them, `from` and `last`: the seconds between which they lie. Places (calls in flight) are a sorted
--       set of the calls' ids by the millisecond in which each lease ends.
--       The last may be an answer's instead: it is looked up by a hold that takes what it asks for.
-- ARGV  operation, id of the call, and words: a lease's length in ms; then, for each meter:
--         look, hold   kind (window or places), limit, amount
--         settle       kind, change of the amount, second in which it was held
--         renew        id of the call
--       and, where an answer is looked up, the bytes of the longest that is told
local SPAN = 60          -- seconds: WINDOW_S
local PLACE_WAIT = 1000  -- ms: PLACE_WAIT_S

local operation, id, words = ARGV[1], ARGV[2], {}
for word in string.gmatch(ARGV[3], '%S+') do words[#words + 1] = word end
local lease = tonumber(words[1])
local longest_told = tonumber(ARGV[4])
local meters = longest_told and {unpack(KEYS, 1, #KEYS - 1)} or KEYS
local time = redis.call('TIME')
local now = tonumber(time[1])
local now_ms = now * 1000 + math.floor(tonumber(time[2]) / 1000)

local function left(second)
  return (second + SPAN + 1) * 1000 - now_ms
end

local function seconds_between(first, last)
  local seconds = {}
  for second = first, last do seconds[#seconds + 1] = second end
  return seconds
end

-- Drop the seconds that have left the window; nothing is written for a meter that is not in use.
local function slide(key)
  local head = redis.call('HMGET', key, 'sum', 'from', 'last')
  if not head[1] then return {sum = 0, from = now, last = now} end
  local sum, from, last = tonumber(head[1]), tonumber(head[2]), tonumber(head[3])
  if last > now then  -- the server's clock went back: all of it counts as used now, so nothing is forgotten too early
    redis.call('DEL', key)
    redis.call('HSET', key, 'sum', sum, 'from', now, 'last', now, now, sum)
    redis.call('EXPIRE', key, SPAN + 2)
    return {sum = sum, from = now, last = now}
  end
  local stale = seconds_between(from, math.min(now - SPAN - 1, last))
  if #stale > 0 then
    for _, amount in ipairs(redis.call('HMGET', key, unpack(stale))) do sum = sum - tonumber(amount or 0) end
    from = now - SPAN
    if sum == 0 then
      redis.call('DEL', key)
      return {sum = 0, from = now, last = now}
    end
    redis.call('HDEL', key, unpack(stale))
    redis.call('HSET', key, 'sum', sum, 'from', from)
  end
  return {sum = sum, from = from, last = last}
end

local function use(key, window, amount)
  if amount == 0 then return end
  if window.sum == 0 then redis.call('HSET', key, 'from', now) end
  redis.call('HINCRBY', key, now, amount)
  redis.call('HSET', key, 'sum', window.sum + amount, 'last', now)
  redis.call('EXPIRE', key, SPAN + 2)
  window.sum, window.last = window.sum + amount, now
end

local function give_back(key, window, amount, second)
  local back = math.min(amount, tonumber(redis.call('HGET', key, second) or 0))
  if back == 0 then return end
  if back == window.sum then
    redis.call('DEL', key)
    return
  end
  redis.call('HSET', key, 'sum', window.sum - back)
  if redis.call('HINCRBY', key, second, -back) > 0 then return end
  redis.call('HDEL', key, second)
  if second == window.last then
    local earlier = seconds_between(window.from, second - 1)
    local amounts = redis.call('HMGET', key, unpack(earlier))
    for i = #earlier, 1, -1 do
      if amounts[i] then
        redis.call('HSET', key, 'last', earlier[i])
        return
      end
    end
  end
end

-- When there may be room for `amount`, in ms.
local function wait(key, window, amount, limit)
  local over = window.sum + amount - limit
  local seconds = seconds_between(window.from, window.last)
  for i, used in ipairs(redis.call('HMGET', key, unpack(seconds))) do
    over = over - tonumber(used or 0)
    if over <= 0 then return left(seconds[i]) end
  end
  return left(window.last)
end

local function places(key)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', now_ms)
  return redis.call('ZCARD', key)
end

local function lease_place(key, holder)
  redis.call('ZADD', key, now_ms + lease, holder)
  redis.call('PEXPIRE', key, lease + 1000)
end

-- What is kept under `key`: an answer, `false` where there is none, the length of one that is too long to be told.
local function look_up(key)
  local length = redis.call('STRLEN', key)
  if length == 0 then return false end
  return length <= longest_told and redis.call('GET', key) or length
end

local function look_or_hold()
  local used, windows = {}, {}
  local denied, longest = 0, -2
  for i, key in ipairs(meters) do
    local kind, limit, amount = words[3 * i - 1], tonumber(words[3 * i]), tonumber(words[3 * i + 1])
    if kind == 'window' then
      windows[i] = slide(key)
      used[i] = windows[i].sum
    else
      used[i] = places(key)
    end
    if operation == 'hold' and used[i] + amount > limit then
      local this = math.huge
      if amount <= limit then this = windows[i] and wait(key, windows[i], amount, limit) or PLACE_WAIT end
      if this > longest then denied, longest = i, this end
    end
  end
  local found = longest_told and denied == 0 and look_up(KEYS[#KEYS])  -- whatever it may say, nothing is taken yet
  local answer = {denied, now, longest == math.huge and -1 or longest}
  for i, key in ipairs(meters) do
    local limit, amount = tonumber(words[3 * i]), tonumber(words[3 * i + 1])
    local reset = 0
    if operation == 'hold' and denied == 0 then
      if windows[i] then use(key, windows[i], amount) else lease_place(key, id) end
      used[i] = used[i] + amount
    end
    if used[i] > 0 then reset = windows[i] and left(windows[i].last) or PLACE_WAIT end
    answer[#answer + 1] = math.max(0, limit - used[i])
    answer[#answer + 1] = reset
  end
  if longest_told then answer[#answer + 1] = found end
  return answer
end

local function settle()
  for i, key in ipairs(KEYS) do
    local kind, change, second = words[3 * i - 1], tonumber(words[3 * i]), tonumber(words[3 * i + 1])
    if kind == 'places' then
      redis.call('ZREM', key, id)
    elseif change > 0 then
      use(key, slide(key), change)
    else
      give_back(key, slide(key), -change, second)
    end
  end
end

local function renew()
  for i, key in ipairs(KEYS) do lease_place(key, words[1 + i]) end
end

if operation == 'settle' then return settle() end
if operation == 'renew' then return renew() end
return look_or_hold()
