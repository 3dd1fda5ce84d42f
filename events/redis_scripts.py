"""What the server runs for the log as one step: Lua scripts, each with its keys and its answers.

A script answers 0 (or nothing) when what it was told no longer holds, and has changed nothing then; who asked
looks at what is stored and says why.
"""

import hashlib


class Script:
    """A Lua script and the name under which the server caches it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.sha = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()


# Entries that follow each other, all of them or none: a script that has begun to write runs to its end. The
# order of checks is that of likely causes. NOMKSTREAM keeps a lost stream from growing with a hole.
APPEND_EVENTS = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local head = redis.call('HMGET', KEYS[2], 'seq', 'hash')
if not head[1] then head = {'0', string.rep('\\0', 32)} end
local seq = tonumber(ARGV[2])
if head[1] ~= string.format('%.0f', seq - 1) or head[2] ~= ARGV[3] then return 0 end
if seq > 1 and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
for i = 5, #ARGV, 4 do
  redis.call('XADD', KEYS[1], '0-' .. string.format('%.0f', seq),
    'v', ARGV[i], 'b', ARGV[i + 1], 'h', ARGV[i + 2], 'w', ARGV[4], 'x', ARGV[i + 3])
  seq = seq + 1
end
redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq - 1), 'hash', ARGV[#ARGV - 1])
return 1
""")

# An append over a new connection, which may lead to a server that has lost its tail. ARGV: an entry that must
# be there, unless it was trimmed, and its checksum; the new entry's fields.
APPEND_BEHIND = Script("""
local last = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)[1]
if not last then return false end
if tonumber(string.sub(last[1], 3)) < tonumber(ARGV[1]) then return 0 end
local id = '0-' .. ARGV[1]
local seen = redis.call('XRANGE', KEYS[1], id, id)[1]
if seen then
  for i = 1, #seen[2], 2 do
    if seen[2][i] == 'c' and seen[2][i + 1] ~= ARGV[2] then return 0 end
  end
end
return redis.call('XADD', KEYS[1], 'NOMKSTREAM', '0-*', unpack(ARGV, 3))
""")

ACQUIRE = Script("""
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local term = math.max(tonumber(redis.call('GET', KEYS[2]) or '0'), tonumber(ARGV[3])) + 1
redis.call('SET', KEYS[2], string.format('%.0f', term))
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return term
""")

# Also takes back a lease that expired: with no later term nobody else has written.
RENEW = Script("""
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
""")

RELEASE = Script("""
if redis.call('GET', KEYS[2]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
return 1
""")

# Both streams must end where the restored entries begin. ARGV: term, head, number of the first command, how
# many commands there are, six values of each, five of each event.
RESTORE = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local head = redis.call('HMGET', KEYS[2], 'seq', 'hash')
if not head[1] then head = {'0', string.rep('\\0', 32)} end
if head[1] ~= ARGV[2] or head[2] ~= ARGV[3] then return 0 end
local seq = tonumber(ARGV[2])
if seq > 0 and redis.call('EXISTS', KEYS[1]) == 0 then return 0 end
local last = 0
if redis.call('EXISTS', KEYS[4]) == 1 then
  local info = redis.call('XINFO', 'STREAM', KEYS[4])
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then last = tonumber(string.sub(info[i + 1], 3)) end
  end
end
local count = tonumber(ARGV[5])
if count > 0 and last + 1 ~= tonumber(ARGV[4]) then return 0 end
local first_event = 6 + 6 * count
if seq + (#ARGV + 1 - first_event) / 5 > last + count then return 0 end
for i = 6, first_event - 1, 6 do
  last = last + 1
  redis.call('XADD', KEYS[4], '0-' .. string.format('%.0f', last), 'v', ARGV[i], 'o', ARGV[i + 1],
    'n', ARGV[i + 2], 't', ARGV[i + 3], 'b', ARGV[i + 4], 'c', ARGV[i + 5])
end
for i = first_event, #ARGV, 5 do
  seq = seq + 1
  redis.call('XADD', KEYS[1], '0-' .. string.format('%.0f', seq), 'v', ARGV[i], 'b', ARGV[i + 1],
    'h', ARGV[i + 2], 'w', ARGV[i + 3], 'x', ARGV[i + 4])
  redis.call('HSET', KEYS[2], 'seq', string.format('%.0f', seq), 'hash', ARGV[i + 2])
end
return 1
""")

# A stream does not give numbers again, so what stays is written anew. ARGV: term, the last command to keep.
DROP_UNANSWERED = Script("""
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return 0 end
local answered = tonumber(redis.call('HGET', KEYS[2], 'seq') or '0')
if answered > tonumber(ARGV[2]) then return 0 end
redis.call('DEL', KEYS[4])
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '-', '0-' .. ARGV[2])) do
  redis.call('XADD', KEYS[4], entry[1], unpack(entry[2]))
end
if redis.call('EXISTS', KEYS[4]) == 0 then return 0 end
redis.call('RENAME', KEYS[4], KEYS[1])
return 1
""")

# ARGV: the first entry to keep and its hash, which must be there; up to where to remove in this call. The
# note of where the streams begin tells readers what was trimmed from what is missing.
TRIM = Script("""#!lua flags=allow-oom
local id = '0-' .. ARGV[1]
local stored = redis.call('XRANGE', KEYS[1], id, id)[1]
if not stored or not redis.call('XRANGE', KEYS[2], id, id)[1] then return 0 end
for i = 1, #stored[2], 2 do
  if stored[2][i] == 'h' and stored[2][i + 1] ~= ARGV[2] then return 0 end
end
redis.call('SET', KEYS[3], ARGV[3])
redis.call('XTRIM', KEYS[1], 'MINID', '=', '0-' .. ARGV[3])
redis.call('XTRIM', KEYS[2], 'MINID', '=', '0-' .. ARGV[3])
return 1
""")
