local function words(...)
    local all = {}
    for n = 1, select('#', ...) do
        all[n] = tostring((select(n, ...)))
    end
    return table.concat(all, ' ') .. '\n'
end

function run(env)
    local c = 'c'
    uwsgi.cache_del('k', c)
    uwsgi.cache_del('k')
    local body = words('set', uwsgi.cache_set('k', 'v', 0, c), uwsgi.cache_set('k', 'w', 0, c))
        .. words('get', uwsgi.cache_get('k', c), uwsgi.cache_get('none', c))
        .. words('update', uwsgi.cache_update('k', 'a\0b', 60, c), #uwsgi.cache_get('k', c))
        .. words('exists', uwsgi.cache_exists('k', c), uwsgi.cache_exists('none', c))
        .. words('del', uwsgi.cache_del('k', c), uwsgi.cache_del('k', c), uwsgi.cache_get('k', c))
        .. words('first', uwsgi.cache_set('k', 'v'), uwsgi.cache_get('k'), uwsgi.cache_get('k', c))
        .. words('clear', uwsgi.cache_clear(), uwsgi.cache_get('k'))
    return 200, { ['Content-Type'] = 'text/plain' }, coroutine.wrap(function() coroutine.yield(body) end)
end

return run
