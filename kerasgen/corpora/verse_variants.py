"""Unifies variant characters, which two editions of a poem write differently and read alike."""

from __future__ import annotations

# The first of each group is the form kept. A variant is in no other group, and means nothing else in verse: 閒 (idle or
# between), 于 (a name too), 台, 后, 里 and their like are therefore not here. Chosen by hand from the characters that
# OpenCC simplifies alike and that both occur in the poems of 全唐诗, and from the variant forms of its typists.
_IN_BOTH_SCRIPTS = """
溪谿 峰峯 群羣 杯盃 修脩 弦絃 凌淩 泛汎 凄淒 脚腳 逾踰 棋棊碁 秘祕 污汙 葱蔥 唇脣 溯泝遡 猿猨 雁鴈 鞋鞵 村邨
船舩 蕊蘂 蛇虵 遁遯 靴鞾 飧飱 仙僊 丘坵 野埜 婿壻 巡廵 遍徧 怪恠 憩憇 插挿揷 考攷 昏昬 昂昻 映暎 朵朶 楠枏柟
柳栁桞 楫檝 棹櫂 派沠 浙淛 渴渇 餐湌 浚濬 炯烱 暖煖 熙熈 焰燄 犁犂 徇狥 妙玅 珍珎 略畧 皋皐臯 鼓皷 碗盌椀 眷睠
粳秔 稚稺 箸筯 荔茘 莽莾 蒂蔕 萼蕚 蜂蠭 察詧 耽躭 迥逈 堤隄 腮顋 髯髥 默黙 年秊 慎愼 真眞 兔兎 每毎 晚晩 清淸
青靑 高髙 既旣 即卽 概槪 冰氷 草艸 回囘囬 秋秌 春旾 夜亱 花蘤 苑菀 疏疎踈 翻飜 劫刧 敕勅 倏倐 砧碪 筇笻 檐簷
蓑簑 樽罇 泄洩 胸胷 肯肎 恒恆 杆桿 抬擡 步歩 床牀 喧諠
"""
_IN_TRADITIONAL = """
黃黄 煙烟 歲嵗 別别 樓楼 來来 數数 綠緑 絕絶 魚鱼 虛虚虗 宮宫 愛爱 蕭萧 畫畵 憐怜 橫横 靜静 涼凉 巖岩巌巗 爭争
寧宁 遙遥 臥卧 顏顔 徑逕 跡迹蹟 帶带 歎嘆 吳吴呉 教敎 種种 禪禅 繞遶 淚涙泪 衆眾 況况 雞鷄 戶户 參参 強强 棲栖
攜携擕 壯壮 搖摇 蓋盖葢 脫脱 彩綵 濕溼湿 蕩盪 羨羡 薦荐 瑤瑶 繡綉繍 潛潜 棄弃 體体 蟬蝉 館舘 溫温 疊叠疉 韻韵
彈弹 艷豔艶 淨凈 錄録 蟲虫 祿禄 鈎鉤 換换 鑑鑒 臘腊 凜凛 筍笋 慘惨 減减 閱閲 穩稳 頹頽 晉晋 娛娱 勳勛 侶侣 啟啓
鳧鳬 寢寝 膽胆 礙碍 壞坏 狀状 挾挟 爲為 說説 悅悦 銳鋭 稅税 蛻蜕 內内 產産 決决 鄉郷鄕 線綫 廚厨 麼麽 灩灧 蓴蒓
鬥鬬鬭 鵝鵞 裏裡 鄰隣 鋤耡鉏 蘇蘓 解觧 讎讐 輒輙 鐵銕鐡 靈霊 襪韈 驅駈 罵駡 鬢髩鬂 麵麪 鰲鼇 葬塟 慚慙 歡懽
敘敍 斲斵 氈氊 闊濶 輝煇 窗窓窻牎牕 視眎 窯窰 綿緜 羌羗 聯聨聫 脅脇 蠶蚕 羈覊 訛譌 貌貎 賓賔 贊賛 賢贒 職軄
輿轝 鎖鎻鏁 塢隖 賴頼 飆飇飈 餵餧 驢馿 驗騐 鳳鳯 鴉鵶 鶯鶑鸎 獐麞 隱隠隐 酬詶醻酧 邛卭 僕仆 佛彿 燈灯 卻却
個箇个 牆墻墙 詠咏 蹤踪 甕瓮 脈脉 恥耻 嫋裊袅 鉢缽钵 癡痴 拋抛 褲袴裤 妝粧妆 豬猪 貓猫 剎刹 迴廻 懶嬾 幷并 冊册
弔吊 舊旧 聲声 萬万 與与 辭辞 亂乱 獻献 齊斉 憂忧 願愿
"""
# Common characters that one of the two scripts alone has, in the same order.
_TRADITIONAL_SIGNS = "來無時風長開門間見馬東車書雲飛歸聲萬國覺爲為對與從當過還遠動華會雙難頭應聽語誰處"
_SIMPLIFIED_SIGNS = "来无时风长开门间见马东车书云飞归声万国觉为为对与从当过还远动华会双难头应听语谁处"
_ALONE = {
    script: frozenset(signs) - frozenset(others)
    for script, signs, others in (
        ("traditional", _TRADITIONAL_SIGNS, _SIMPLIFIED_SIGNS),
        ("simplified", _SIMPLIFIED_SIGNS.replace("云", "").replace("从", ""), _TRADITIONAL_SIGNS),
    )
}


def _table(*groups: str) -> dict[int, str]:
    return {
        ord(variant): group[0] for group in " ".join(groups).split() for variant in group[1:] if variant != group[0]
    }


_SHARED = _table(_IN_BOTH_SCRIPTS)
_TRADITIONAL = _table(_IN_BOTH_SCRIPTS, _IN_TRADITIONAL)


def unify(text: str) -> str:
    """Return the text with one form of each variant character: 黃 for 黄 in traditional text, 峰 for 峯 in either.

    A text is traditional unless it has more characters that only simplified script has. In simplified text the variants
    that are that script's own forms stay.
    """
    traditional = sum(character in _ALONE["traditional"] for character in text)
    simplified = sum(character in _ALONE["simplified"] for character in text)
    return text.translate(_SHARED if simplified > traditional else _TRADITIONAL)


def fold(text: str) -> str:
    """Return the text with one form of each variant character whatever its script, to compare it with others."""
    return text if text.isascii() else text.translate(_TRADITIONAL)


def families() -> list[str]:
    """Return the groups of variants, the form that is kept first in each."""
    return f"{_IN_BOTH_SCRIPTS} {_IN_TRADITIONAL}".split()
