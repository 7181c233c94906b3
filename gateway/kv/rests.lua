-- Which deployments rest, by the server's own clock. What is promised is written in core/resources.py.
--
-- KEYS  a sorted set of the names, by the millisecond in which each rest ends, times 1000, and strikes; without strikes
--       it has ended, and is told until then;
--       the name's lease, which is there while one worker probes it, with that worker's mark (none for `news`)
-- ARGV  operation, and then
--         rest      name, how long in ms, strikes, how many names are kept at most
--         back      name, how long it is told in ms, how many names are kept at most
--         news      –
--         give_up   the worker's mark
local rests, lease = KEYS[1], KEYS[2]
local operation, name = ARGV[1], ARGV[2]
local MOST_STRIKES = 999
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)

local function score(until_ms, strikes)
  return until_ms * 1000 + math.min(strikes, MOST_STRIKES)
end

local function read(said)
  said = tonumber(said)
  return math.floor(said / 1000), said % 1000
end

local function tell(until_ms, strikes, most)
  redis.call('ZADD', rests, score(until_ms, strikes), name)
  redis.call('ZREMRANGEBYRANK', rests, 0, -most - 1)
  redis.call('PEXPIREAT', rests, (read(redis.call('ZRANGE', rests, -1, -1, 'WITHSCORES')[2])))
  redis.call('DEL', lease)
end

local function rest(ms, strikes, most)
  local until_ms = now + ms
  redis.call('ZREMRANGEBYSCORE', rests, '-inf', score(now, MOST_STRIKES))
  local other_until_ms, other_strikes = read(redis.call('ZSCORE', rests, name) or 0)
  if other_strikes > 0 then
    until_ms, strikes = math.max(until_ms, other_until_ms), math.max(strikes, other_strikes)
  end
  tell(until_ms, strikes, most)
end

if operation == 'news' then  -- as it is, to be read by who asked: nobody else is served while a script runs
  return {now, redis.call('ZRANGEBYSCORE', rests, score(now + 1, 0), '+inf', 'WITHSCORES')}
end
if operation == 'rest' then return rest(tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])) end
if operation == 'back' then return tell(now + tonumber(ARGV[3]), 0, tonumber(ARGV[4])) end
if redis.call('GET', lease) == name then redis.call('DEL', lease) end
